from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.search.shared import share_preparations


@pytest.fixture(scope="package", autouse=True)
def shared_preparations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with share_preparations(tmp_path_factory.mktemp("empty")):
        yield
