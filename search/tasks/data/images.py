"""Images with labels, wherever they lie: what a split of images reads, and whether they can be read at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol, Self

from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import default_loader

from search.tasks.data.hashes import content_hash
from spaces import InputError

THREADS = 8
"""Images that are looked at together."""


class LabelledImages(Protocol):
    """Images by number, each with a class."""

    @property
    def labels(self) -> Tensor:
        """Classes, ``[images]``, int64."""

    @property
    def place(self) -> str:
        """Where the images lie, for messages."""

    def part(self, index: Tensor) -> Self:
        """Select some of the images.

        Args:
            index: Which ones, ``[n]``.

        Returns:
            Those images, in this order.
        """

    def read(self, number: int) -> Image.Image:
        """Decode an image.

        Args:
            number: Which one.

        Returns:
            The image in three channels.
        """

    def measure_side(self, number: int) -> int:
        """Measure an image.

        Args:
            number: Which one.

        Returns:
            Its shorter side in pixels.
        """

    def broken(self) -> Iterator[tuple[str, str]]:
        """Look for images that cannot be read.

        Yields:
            Name of the image, and what is wrong with it.
        """

    def key(self) -> object:
        """Name the images.

        Returns:
            Something whose ``repr`` tells which images these are.
        """

    def content(self) -> str:
        """Hash what the images hold.

        Returns:
            Hexadecimal digits; equal for equal images in the same order.
        """


@dataclass(frozen=True)
class ImageFiles:
    """Image files and their labels (:class:`LabelledImages`).

    Attributes:
        folder: Folder that holds them.
        paths: Paths of the images below ``folder``.
        labels: ``[images]``, int64.
    """

    folder: Path
    paths: tuple[str, ...]
    labels: Tensor

    @property
    def place(self) -> str:
        """The folder, for messages."""
        return f"the folder {self.folder}"

    def part(self, index: Tensor) -> ImageFiles:
        """Select some of the images.

        Args:
            index: Which ones, ``[n]``.

        Returns:
            Those images, in this order.
        """
        return ImageFiles(self.folder, tuple(self.paths[i] for i in index.tolist()), self.labels[index])

    def read(self, number: int) -> Image.Image:
        """Decode an image.

        Args:
            number: Which one.

        Returns:
            The image in three channels.
        """
        image: Image.Image = default_loader(str(self.folder / self.paths[number]))
        return image

    def measure_side(self, number: int) -> int:
        """Measure an image by its header.

        Args:
            number: Which one.

        Returns:
            Its shorter side in pixels.
        """
        with Image.open(self.folder / self.paths[number]) as image:
            return min(image.size)

    def broken(self) -> Iterator[tuple[str, str]]:
        """Look for files that cannot be read.

        Yields:
            Path of the file, and what is wrong with it.
        """
        files = [self.folder / path for path in self.paths]
        with ThreadPoolExecutor(THREADS) as pool:
            for file, wrong in zip(files, pool.map(explain_unreadable, files), strict=True):
                if wrong is not None:
                    yield str(file), wrong

    def key(self) -> object:
        """Name the images.

        Returns:
            Their paths.
        """
        return self.paths

    def content(self) -> str:
        """Hash the files.

        Returns:
            Hexadecimal digits.
        """
        return content_hash(self.folder, self.paths)


def check_images(several: Sequence[LabelledImages]) -> None:
    """Open every image, so that a broken one is named before anything is trained.

    Headers and checksums are read, and the end of JPEG files, not all pixels: a thousand small images take a second.

    Args:
        several: The parts of a data set.

    Raises:
        InputError: If some cannot be read; the first ones are named.
    """
    broken = [found for images in several for found in images.broken()]
    if broken:
        listed = "; ".join(f"{name} ({wrong})" for name, wrong in broken[:3])
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise InputError(f"images that cannot be read: {listed}{more}; remove or replace them")


def explain_unreadable(source: Path | bytes) -> str | None:
    """Say why an image cannot be read.

    Args:
        source: Its file, or what the file holds.

    Returns:
        The reason; ``None`` if it can be read.
    """
    try:
        with Image.open(_open_source(source)) as image:
            kind = image.format
            image.verify()
        if kind == "JPEG" and not _has_jpeg_end(source):
            with Image.open(_open_source(source)) as image:
                image.load()  # only what looks cut off is decoded
    except Exception as error:  # decoders fail in any way on what is no image
        said = str(error).splitlines() or [type(error).__name__]
        known = said[0].replace(str(source), "the file") if isinstance(source, Path) else said[0]
        return "not a known image format" if known.startswith("cannot identify image file") else known
    return None


def _open_source(source: Path | bytes) -> Path | BytesIO:
    return source if isinstance(source, Path) else BytesIO(source)


def _has_jpeg_end(source: Path | bytes) -> bool:
    if isinstance(source, bytes):
        return b"\xff\xd9" in source[-64:]
    with source.open("rb") as file:
        file.seek(-min(64, source.stat().st_size), 2)
        return b"\xff\xd9" in file.read()
