"""Telemetry: where numbers go while a run goes on."""
