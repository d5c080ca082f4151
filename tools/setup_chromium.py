#!/usr/bin/env python3
"""Make sure that there is a Chromium, for the tests that read pages as a person would.

    python3 tools/setup_chromium.py

Returns at once where Chromium or Chrome is installed, or CHROMIUM names one. On Debian and Ubuntu,
as root, it installs the package `chromium` with fonts for every script of the tests; elsewhere it
says what to do.
"""

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-dejavu-core", "fonts-noto-cjk")
HINT = "Install Chromium or Chrome with your system's package manager, or set CHROMIUM to its path."


def find() -> str | None:
    """The path of an installed Chromium or Chrome, or None."""
    named = os.environ.get("CHROMIUM")
    return next(filter(None, map(shutil.which, [named] if named else NAMES)), None)


def main() -> None:
    if find():
        return
    apt = shutil.which("apt-get")
    if apt is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        sys.exit(HINT)
    print("installing chromium ...", flush=True)
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        command = [apt, "-qq", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{done.stderr[-2000:]}\nFailed: {' '.join(command)}\n{HINT}")


if __name__ == "__main__":
    main()
