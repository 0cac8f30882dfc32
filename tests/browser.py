"""Pages in headless Chromium: the server's process, the browser, and what both may not do."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--window-size=1200,1000"),
)
PATIENCE = 180
"""Seconds until a page must be there, or show what it was asked for, on a machine that does much else."""


def skip_without_browser():
    """Skip a module's tests where they cannot run, saying what is missing."""
    missing = [name for name in ("gradio", "selenium") if find_spec(name) is None]
    missing += [name for name, path in (("chromium", CHROMIUM), ("chromedriver", DRIVER)) if path is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}", allow_module_level=True)


@contextmanager
def serve(command, folder):
    """Run a page's server, by arguments of Python; yields its address and the growing list of lines that it wrote."""
    # a proxy that nobody is: what the server would fetch from elsewhere fails, and is told of in its output
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9") | {"NO_PROXY": "127.0.0.1,localhost"}
    flags = dict.fromkeys(("HF_HUB_OFFLINE", "PYTHONUNBUFFERED", "OMP_NUM_THREADS"), "1")
    environment = os.environ | proxies | flags | {"TMPDIR": str(folder)}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([sys.executable, *map(str, command)], cwd=folder, env=environment, **pipes)
    lines = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    try:
        yield _address(process, lines), lines
    finally:
        process.terminate()
        process.wait(timeout=30)
        reader.join(timeout=30)


def _address(process, lines):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = re.search(r"http://127\.0\.0\.1:\d+/?", "".join(lines))
        if found:
            return found[0]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(f"no page: {''.join(lines)}")


@contextmanager
def open_browser(profile):
    """A Chromium of its own profile, without extensions, updates or addresses of others."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    driver.set_script_timeout(PATIENCE)
    try:
        yield driver
    finally:
        driver.quit()


def wait(driver, script, *arguments):
    """The value of a JavaScript expression once it is true."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(driver, PATIENCE).until(lambda page: page.execute_script(f"return {script}", *arguments))


def foreign_requests(driver):
    """Addresses beyond this machine that the page asked for."""
    names = driver.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    return [name for name in names if name.startswith("http") and not name.startswith("http://127.0.0.1")]
