"""What the benchmarks write down beside their figures."""

import json
from importlib import metadata
from pathlib import Path

import pytest

import gcpool
from bench import report
from bench.settings import QUICK


def no_distributions() -> list[metadata.Distribution]:
    return []


def test_figures_name_the_gcpool_that_they_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # From a checkout on PYTHONPATH there is no distribution to ask.
    monkeypatch.setattr(metadata, 'distributions', no_distributions)
    report.write_json([], QUICK, tmp_path / 'figures.json')
    document = json.loads((tmp_path / 'figures.json').read_text(encoding='utf-8'))
    assert document['environment']['versions'] == {'gcpool': gcpool.__version__}
