"""The report in a real Chromium: slider, keyboard, colours, no request; and archives of any size."""

import resource
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from pipeline.data import manifest
from pipeline.pages.report import write_report
from pipeline.records import DONE, FAILED, Outcome

if TYPE_CHECKING:
    from playwright.sync_api import Browser

in_browser = pytest.importorskip("tests.pages.in_browser", reason="Playwright or axe is not installed")

NOW = datetime(2026, 1, 2, tzinfo=UTC)
EVIL = '"><img src="{home}/leak.png"><script>fetch("{home}/script")</script>'
