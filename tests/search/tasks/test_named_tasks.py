"""Tasks by name, and what is said where a name stands for no task."""

from __future__ import annotations

from pathlib import Path

import pytest

from methods.contract.classification import Classification
from search.study.config_file import load_config
from search.tasks.named_tasks import METRICS, TASKS, load_task, metric_names
from search.tasks.segmentation import Segmentation
from spaces import InputError


@pytest.mark.parametrize("name", TASKS)
def test_the_table_of_metrics_is_that_of_the_classes(name: str) -> None:
    assert METRICS[name] == tuple(metric.name for metric in load_task(name).metrics) == metric_names(name)


def test_options_reach_the_task() -> None:
    task = load_task("segmentation", {"ignore_index": 7})
    assert isinstance(task, Segmentation) and task.ignore_index == task.fill == 7
    assert isinstance(load_task("classification"), Classification)


def test_what_is_no_task_is_said() -> None:
    with pytest.raises(InputError, match="did you mean 'segmentation'"):
        load_task("segmentaton")
    with pytest.raises(
        InputError, match=r"cannot be built with \{'ignore': 3\}: .*unexpected keyword argument 'ignore'"
    ):
        load_task("segmentation", {"ignore": 3})
    with pytest.raises(InputError, match="Metric is the class Metric, not a subclass of methods.contract.task.Task"):
        load_task("methods.contract.task:Metric")
    with pytest.raises(InputError, match="there is no module 'nowhere_at_all'"):
        load_task("nowhere_at_all:Task")
    with pytest.raises(InputError, match="cannot be built with no options: .*abstract"):
        load_task("methods.contract.task:Task")


def test_a_task_of_ones_own_by_module_and_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_task_module.py").write_text(
        "from search.tasks.regression import Regression\n"
        "from methods.contract.task import Metric\n"
        "class Mine(Regression):\n"
        "    name = 'mine'\n"
        "    metrics = (Metric('closeness', 'closeness', ideal=1.0),)\n"
        "    def metrics_from(self, sums):\n"
        "        return {'closeness': 1 / (1 + super().metrics_from(sums)['mse'])}\n"
        "class Bad(Mine):\n"
        "    metrics = (Metric('flops', 'flops'),)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert metric_names("users_task_module:Mine") == ("closeness",)
    with pytest.raises(InputError, match="mine task cannot call a metric 'flops'"):
        load_task("users_task_module:Bad")
    config = load_config(None, ["task=users_task_module:Mine"])
    assert config.objectives == ("closeness", "flops")


def test_objectives_follow_the_task() -> None:
    assert load_config(None, ["task=segmentation"]).objectives == ("mean_iou", "flops")
    assert load_config(None, ["task=regression"]).objectives == ("r2", "flops")
    assert load_config().objectives == ("accuracy", "flops")
    with pytest.raises(InputError, match="unknown objective 'accuracy'.*mean_iou"):
        load_config(None, ["task=segmentation", "objectives=['accuracy','flops']"])
