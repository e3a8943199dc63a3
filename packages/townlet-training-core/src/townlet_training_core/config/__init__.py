"""Configuration: frozen models (`models`) and the loader that reads YAML and ``--set`` overrides (`loader`)."""
