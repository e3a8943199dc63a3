"""Look at a report in a headless Chromium: what it says, what it asks for, who can read it.

``python tests/check_report.py report.html --axe axe.min.js --pictures folder`` prints what was found as JSON; exit
code 1 when something was, 2 when there is no browser. The browser is driven over its DevTools pipe, without a driver
program or a port.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
]


class Browser:
    """One page of a browser with an empty profile; collects what the page says and asks for.

    Attributes
    ----------
    said:
        Console messages, uncaught exceptions and the browser's own warnings about the page.
    asked:
        URLs that the page requested, without ``data:``.
    """

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        self.said: list[str] = []
        self.asked: list[str] = []
        self._loaded: set[str] = set()
        self._number, self._buffer, self._session = 0, b"", ""
        # The browser reads commands from descriptor 3 and answers on 4.
        here_in, self._write = os.pipe()
        self._read, here_out = os.pipe()
        command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        shell = ["sh", "-c", f'exec "$@" 3<&{here_in} 4>&{here_out}', "sh", *command]
        self._process = subprocess.Popen(
            shell, pass_fds=(here_in, here_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(here_in)
        os.close(here_out)
        pages = [target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._session = ""
        try:
            self.call("Browser.close")  # its processes end together and let go of the profile
            self._process.wait(timeout=20)
        except (OSError, RuntimeError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def open(self, page: Path, *, dark: bool = False, width: int = 1280, height: int = 900) -> None:
        """Open a file in a window of the given size, and wait until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.setBypassCSP", enabled=True)  # for the checks that are run in the page
        self._loaded.clear()
        loader = self.call("Page.navigate", url=page.as_uri())["loaderId"]
        while loader not in self._loaded:
            self._note(self._receive())

    def run(self, script: str) -> Any:
        """Evaluate JavaScript in the page and return its value; a promise is waited for."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            details = done["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return done["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            extra = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def picture(self, target: Path, *, whole: bool = False) -> None:
        """Save a screenshot as PNG: of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        target.write_bytes(base64.b64decode(shot["data"]))

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event["method"] == "Page.lifecycleEvent" and params["name"] == "load":
            self._loaded.add(params["loaderId"])
        elif event["method"] == "Runtime.consoleAPICalled":
            words = " ".join(str(item.get("value", item.get("description", ""))) for item in params["args"])
            self.said.append(f"{params['type']}: {words}")
        elif event["method"] == "Runtime.exceptionThrown":
            self.said.append(f"exception: {params['exceptionDetails']['text']}")
        elif event["method"] == "Log.entryAdded":
            self.said.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif event["method"] == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith("data:"):
                self.asked.append(url)

    def _receive(self, *, timeout: float = 60.0) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._read, 1 << 16)
            if not piece:
                raise RuntimeError("the browser has closed its pipe")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer


VIEWS = {
    "light": {"dark": False, "width": 1280},
    "dark": {"dark": True, "width": 1280},
    "phone": {"dark": False, "width": 390},
    "phone dark": {"dark": True, "width": 390},
}

# Everything is unfolded, so that what is folded away is looked at as well.
UNFOLD = "document.querySelectorAll('details').forEach(item => { item.open = true })"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
VIOLATIONS = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(
  item => ({id: item.id, impact: item.impact, nodes: item.nodes.map(node => node.html.slice(0, 200)).slice(0, 5)})))"""
FOCUSED = """(() => { const at = document.activeElement, box = at.getBoundingClientRect();
  const style = getComputedStyle(at);
  return {tag: at.tagName, text: (at.getAttribute('aria-label') || at.textContent).slice(0, 60),
          seen: box.width > 0 && box.right > 0 && box.left < innerWidth,
          marked: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0}; })()"""
STOPS = """[...document.querySelectorAll('a[href], summary, [tabindex="0"]')]
  .filter(item => item.checkVisibility()).length"""


def walk(browser: Browser) -> dict[str, Any]:
    """Go through the page by Tab; open the first fold by Enter."""
    stops: list[dict[str, Any]] = []
    opened = 0
    while len(stops) < 500:
        browser.press("Tab", 9)
        stop = browser.run(FOCUSED)
        if stop["tag"] in ("BODY", "HTML"):  # round
            break
        stops.append(stop)
        if stop["tag"] == "SUMMARY" and not opened:
            browser.press("Enter", 13)
            opened = int(browser.run("document.querySelectorAll('details[open]').length"))
    return {
        "stops": len(stops),
        "unreached": int(browser.run(STOPS)) - len(stops),
        "first": stops[0]["text"] if stops else "",
        "lost": [stop for stop in stops if not (stop["seen"] and stop["marked"])],
        "folds": browser.run("document.querySelectorAll('details').length"),
        "opened": opened,
    }


def check(page: Path, *, axe: Path | None, pictures: Path | None) -> dict[str, Any]:
    """Open the page in every view; return what was found in each."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser(Path(profile)) as browser:
        for name, view in VIEWS.items():
            browser.said.clear()
            browser.asked.clear()
            browser.open(page, dark=bool(view["dark"]), width=int(view["width"]))
            seen: dict[str, Any] = {"overflow": browser.run(OVERFLOW)}
            if pictures is not None:
                browser.picture(pictures / f"report-{name.replace(' ', '-')}.png")
            if name == "light":
                seen["keyboard"] = walk(browser)
            browser.run(UNFOLD)
            if axe is not None:
                browser.run(axe.read_text(encoding="utf-8") + "; undefined")
                seen["violations"] = browser.run(VIOLATIONS)
            seen["overflow unfolded"] = browser.run(OVERFLOW)
            seen["said"] = list(browser.said)
            seen["asked"] = [url for url in browser.asked if url != page.as_uri()]
            found[name] = seen
    return found


def faults(found: dict[str, Any]) -> list[str]:
    """List what must not be."""
    wrong = []
    for name, seen in found.items():
        wrong += [f"{name}: the console says {text!r}" for text in seen["said"]]
        wrong += [f"{name}: asks for {url!r}" for url in seen["asked"]]
        wrong += [f"{name}: is {seen[key]} px too wide" for key in ("overflow", "overflow unfolded") if seen[key] > 0]
        for item in seen.get("violations", ()):
            if item["impact"] in ("serious", "critical"):
                wrong.append(f"{name}: {item['impact']} {item['id']}: {item['nodes']}")
    keyboard = found["light"]["keyboard"]
    wrong += [f"keyboard: {stop} cannot be seen" for stop in keyboard["lost"]]
    if keyboard["unreached"]:
        wrong.append(f"keyboard: {keyboard['unreached']} stops are not reached by Tab")
    if keyboard["folds"] and not keyboard["opened"]:
        wrong.append("keyboard: Enter does not open a fold")
    return wrong


def main() -> int:
    """Check the page that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core; accessibility is not checked without")
    parser.add_argument("--pictures", type=Path, help="folder for a screenshot of every view")
    arguments = parser.parse_args()
    if BROWSER is None:
        sys.stderr.write("no Chromium on PATH\n")
        return 2
    if arguments.pictures is not None:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
    found = check(arguments.page.resolve(), axe=arguments.axe, pictures=arguments.pictures)
    wrong = faults(found)
    sys.stdout.write(json.dumps({"faults": wrong, "views": found}, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
