"""A page laid out by Chromium, where there is one."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROBE = """<!DOCTYPE html><html><body style="margin:0">
<iframe id="page" style="border:0;width:WIDTHpx;height:900px"></iframe>
<pre id="found"></pre><script>
const frame = document.getElementById("page");
frame.onload = () => {
  const inner = frame.contentDocument, found = [];
  for (const element of inner.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (box.right > WIDTH + 0.5 && !element.closest(".scroll") && !element.closest("svg")) found.push(element.tagName);
  }
  const loaded = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
  const words = [...inner.querySelectorAll("svg.ego text")].map(text => getComputedStyle(text).fill);
  const card = inner.querySelector(".card");
  document.getElementById("found").textContent = JSON.stringify({
    width: inner.documentElement.scrollWidth, over: found, loaded: loaded, words: [...new Set(words)],
    pictures: [...inner.querySelectorAll("svg.ego")].map(svg => svg.getBoundingClientRect().width),
    charts: inner.querySelectorAll("figure svg").length, card: card ? getComputedStyle(card).backgroundColor : "",
    background: getComputedStyle(inner.body).backgroundColor, text: getComputedStyle(inner.body).color });
};
frame.srcdoc = PAGE;
</script></body></html>"""


def laid_out(page: str, width: int, scheme: str, folder: Path) -> dict[str, Any]:
    """What the browser made of a page; the test is skipped where there is no browser.

    Args:
        page: HTML.
        width: of the window.
        scheme: ``light`` or ``dark``.
        folder: for the browser's files.

    Returns:
        ``width`` of the content; ``over``, tags that stick out; ``loaded``, what was fetched; ``charts``, how many;
        ``pictures``, the widths of explanations' pictures, and ``words``, the colours of their text; ``card``,
        ``background`` and ``text``, colours.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    source = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\!--")
    probe = folder / "probe.html"
    probe.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", source), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'profile'}"]
    # 0 is dark, 1 is light (blink's mojom::PreferredColorScheme).
    flags += [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", "--virtual-time-budget=3000"]
    command = [chromium, *flags, "--dump-dom", probe.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    match = re.search(r'<pre id="found">(.*?)</pre>', shown, flags=re.S)
    assert match and match[1], "the page did not load"
    found: dict[str, Any] = json.loads(html.unescape(match[1]))
    return found


def brightness(colour: str) -> int:
    """The sum of red, green and blue."""
    return sum(map(int, re.findall(r"\d+", colour)[:3]))
