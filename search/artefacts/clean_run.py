"""Run exported networks as a stranger would: a script of its own that imports nothing of paretoprune.

It is never imported by the package. ``search.artefacts.verify`` starts it with ``python -I -S`` in an empty folder, and
tells it on stdin, as JSON, where the libraries are, which packages must not be found, and what to run. It answers on
stdout, as JSON, how far the answers of each file are from those that are expected.
"""

import json
import sys


class Refused:
    """A finder that finds none of the packages which a stranger would not have.

    Args:
        names: Names of packages.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = frozenset(names)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Refuse a name.

        Args:
            name: The module that is imported.
            path: Where it would be looked for.
            target: The module that is reloaded.

        Raises:
            ModuleNotFoundError: If it belongs to a refused package.
        """
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def run_pt2(job: dict, inputs: dict) -> list:  # type: ignore[type-arg]  # no import of typing: this must stay bare
    """Run a program of ``torch.export``.

    Args:
        job: ``file`` and ``keywords`` (whether inputs are keyword arguments).
        inputs: Arrays by name.

    Returns:
        The arrays that come out, in order.
    """
    import torch
    from torch.utils._pytree import tree_leaves

    torch.set_num_threads(1)
    program = torch.export.load(job["file"]).module()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.no_grad():
        answer = program(**tensors) if job["keywords"] else program(*tensors.values())
    return [leaf.numpy() for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor)]


def run_onnx(job: dict, inputs: dict) -> list:  # type: ignore[type-arg]
    """Run an ONNX graph in ONNX Runtime on the CPU.

    Args:
        job: ``file``.
        inputs: Arrays by name, in the order of the graph's inputs.

    Returns:
        The arrays that come out, in order.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(job["file"], options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return list(session.run(None, dict(zip(names, inputs.values(), strict=True))))


RUNNERS = {"pt2": run_pt2, "onnx": run_onnx}


def compare(job: dict) -> dict:  # type: ignore[type-arg]
    """Run one file and compare.

    Args:
        job: ``file``, ``format``, ``keywords``, ``batch`` (``None`` for any), and ``arrays``: an ``.npz`` file of
            inputs ``in.NAME`` and expected answers ``out.N``.

    Returns:
        ``largest_difference``, ``scale`` (largest number expected) and ``inputs`` (how many were run).

    Raises:
        ValueError: If the file gives answers of another number or shape.
    """
    import numpy

    with numpy.load(job["arrays"]) as stored:
        inputs = {key[3:]: stored[key] for key in stored.files if key.startswith("in.")}
        wanted = [stored[f"out.{n}"] for n in range(sum(key.startswith("out.") for key in stored.files))]
    count = len(next(iter(inputs.values())))
    # A single input, then all others: a free batch size must really be free.
    cuts = [(n, n + 1) for n in range(min(count, 4))] if job["batch"] == 1 else [(0, 1), (1, count)]
    largest, scale, done = 0.0, 0.0, 0
    for begin, end in cuts:
        found = RUNNERS[job["format"]](job, {name: array[begin:end] for name, array in inputs.items()})
        if len(found) != len(wanted):
            raise ValueError(f"it gives {len(found)} outputs instead of {len(wanted)}")
        for one, other in zip(found, wanted, strict=True):
            part = other[begin:end]
            if one.shape != part.shape:
                raise ValueError(f"it gives {list(one.shape)} instead of {list(part.shape)}")
            difference = float(numpy.abs(one.astype("float64") - part.astype("float64")).max(initial=0.0))
            if not difference <= largest:  # also where it is not a number
                largest = difference
            scale = max(scale, float(numpy.abs(part).max(initial=0.0)))
        done += end - begin
    return {"largest_difference": largest, "scale": scale, "inputs": done}


def main() -> None:
    """Answer what stdin asks."""
    asked = json.load(sys.stdin)
    sys.path[:] = [entry for entry in sys.path if not entry.endswith("site-packages")] + asked["libraries"]
    sys.meta_path.insert(0, Refused(asked["refused"]))
    answers = []
    for job in asked["jobs"]:
        try:
            answers.append(compare(job))
        except Exception as error:
            said = (str(error).strip().splitlines() or [""])[0]
            answers.append({"error": f"{type(error).__name__}: {said}"})
    loaded = sorted({name.partition(".")[0] for name in sys.modules} & set(asked["refused"]))
    json.dump({"answers": answers, "loaded": loaded}, sys.stdout, allow_nan=True)


if __name__ == "__main__":
    main()
