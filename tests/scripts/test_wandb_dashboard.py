"""The dashboard asks for names that runs really log."""

import importlib.util
from pathlib import Path

import pytest

from fisherexp.audits.unlearning import UnlearningAudit
from fisherexp.callbacks.cost import Cost
from fisherexp.metrics.calibration import CalibrationMetrics
from fisherexp.metrics.domains import DomainMetrics
from fisherexp.metrics.stream import StreamMetrics
from fisherexp.metrics.unlearning import UnlearningMetrics

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "wandb_dashboard.py"


@pytest.fixture
def dashboard():
    pytest.importorskip("wandb_workspaces")
    spec = importlib.util.spec_from_file_location("wandb_dashboard", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_metrics_exist(dashboard):
    stream = StreamMetrics(("clean", "fog", "clean"), {"clean": "clean", "fog": "fog"}, ("fog",))
    domains = DomainMetrics(("train_a", "target"))
    logged = {*UnlearningMetrics.headings, *UnlearningAudit.headings, *Cost().counts(), *domains.headings}
    logged |= {*CalibrationMetrics(("test",)).headings, *stream.headings, "forgetting"}
    asked = set()
    for found in dashboard.WINGS.values():
        for panel in found:
            for name in ("x", "y", "metrics"):
                values = getattr(panel, name, None) or []
                asked |= {str(getattr(v, "name", v)) for v in (values if isinstance(values, list) else [values])}
    wanted = {name.removeprefix("after/") for name in asked if name.startswith("after/")}
    assert len(wanted) >= 10
    assert wanted <= logged


def test_the_workspace_can_be_written_down_without_a_server(dashboard):
    workspace = dashboard.workspace("team", "project")
    text = workspace._to_model().model_dump_json()
    assert all(wing in text for wing in dashboard.WINGS)
    assert "after/oracle_js_forget" in text
