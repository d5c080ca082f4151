"""Tensors of a checkpoint, read one by one into memory of their own.

A mapped file would stay in memory beside what is made of it, and a model that is loaded as a whole
beside its quantised form. Read so, a model takes its own size and that of a layer.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from qwen3_core.model.files import Stored, stored_tensors

DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""Dtypes that weights may be stored in, by the format's names."""

PREFIX: Final = "model."
"""Before the names of a model's tensors where it was saved with its head."""


class Weights:
    """The tensors in a checkpoint's files, by the names that they have in the base model.

    Not for two threads at once.
    """

    def __init__(self, name: str, files: Iterable[Path]) -> None:
        """Read the headers of the files.

        Args:
            name: The checkpoint, for errors.
            files: Files of safetensors.

        Raises:
            OSError: If a file is damaged.
            ValueError: If a tensor is stored in integers or twice.
        """
        self._name = name
        self._stored: dict[str, Stored] = {}
        for key, stored in stored_tensors(list(files)).items():
            short = key.removeprefix(PREFIX)
            if short in self._stored:
                msg = f"the checkpoint {name!r} holds {short} twice, with and without {PREFIX!r}"
                raise ValueError(msg)
            if stored.dtype not in DTYPES:
                msg = (
                    f"weight {key} of {name!r} is stored as {stored.dtype}, and only "
                    f"{', '.join(DTYPES)} are read: use the original checkpoint, with "
                    "dtype='int8' if it is to be small"
                )
                raise ValueError(msg)
            self._stored[short] = stored

    def __contains__(self, key: str) -> bool:
        return key in self._stored

    def check(self, wanted: Iterable[str], spare: Iterable[str] = ()) -> None:
        """Check that the files hold what is wanted, and nothing else but what is spare.

        Raises:
            ValueError: If weights are missing or left over.
        """
        wanted = set(wanted)
        surplus = sorted(self._stored.keys() - wanted - set(spare))
        if surplus:
            msg = (
                f"the checkpoint {self._name!r} has {len(surplus)} weights that its config.json "
                f"knows nothing of (first: {surplus[0]}); without them its answers would be wrong. "
                "Download it again or use the original checkpoint."
            )
            raise ValueError(msg)
        missing = sorted(wanted - self._stored.keys())
        if missing:
            msg = (
                f"the checkpoint {self._name!r} lacks {len(missing)} weights (first: "
                f"{missing[0]}); they would be random. Download it again or use the original "
                "checkpoint."
            )
            raise ValueError(msg)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._stored[key].shape

    def read(self, key: str) -> Tensor:
        """A tensor as it is stored, on the CPU.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it holds NaN or infinity.
        """
        stored = self._stored[key]
        tensor = self._bytes(stored, stored.begin, stored.size).view(stored.shape)
        self._check_finite(key, tensor)
        return tensor

    def rows(self, key: str, indices: Iterable[int]) -> Tensor:
        """Some rows of a matrix, (n, width) float32; nothing else of it is read.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If they hold NaN or infinity, or are not there.
        """
        stored = self._stored[key]
        count, *_ = stored.shape
        size = stored.size // count
        rows = []
        for index in indices:
            if not 0 <= index < count:
                msg = f"weight {key} of {self._name!r} has {count} rows, and row {index} is needed"
                raise ValueError(msg)
            rows.append(self._bytes(stored, stored.begin + index * size, size).float())
        found = torch.stack(rows)
        self._check_finite(key, found)
        return found

    def _bytes(self, stored: Stored, begin: int, size: int) -> Tensor:
        """A stretch of a file as numbers in a row."""
        data = torch.empty(size, dtype=torch.uint8)
        with stored.path.open("rb", buffering=0) as file:
            file.seek(begin)
            left = memoryview(data.numpy().data)
            while left:
                count = file.readinto(left)
                if not count:
                    msg = f"{stored.path} is cut off: download it again"
                    raise OSError(msg)
                left = left[count:]
        return data.view(DTYPES[stored.dtype])

    def _check_finite(self, key: str, tensor: Tensor) -> None:
        # Both are NaN if one number is; a tensor of isfinite() takes forty times as long.
        if tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            msg = f"weight {key} of {self._name!r} holds NaN or infinity: download the model again"
            raise ValueError(msg)

    def fill(self, module: nn.Module, prefix: str, dtype: torch.dtype, device: str) -> None:
        """Read the parameters of a module that has none but their shapes (device "meta").

        Args:
            module: The module.
            prefix: What stands before the names of its parameters.
            dtype: To convert them to.
            device: To put them on.

        Raises:
            OSError: If a file cannot be read.
            ValueError: If a tensor is of another shape, or holds NaN or infinity.
        """
        for name, parameter in list(module.named_parameters()):
            key = prefix + name
            if self.shape(key) != tuple(parameter.shape):
                msg = (
                    f"weight {key} of {self._name!r} has the shape {self.shape(key)}, and its "
                    f"config.json says {tuple(parameter.shape)}: the files are not of one "
                    "checkpoint, download it again"
                )
                raise ValueError(msg)
            tensor = self.read(key).to(device, dtype)
            self._check_finite(key, tensor)  # float16 ends at 65,504
            parent, _, leaf = name.rpartition(".")
            owner: Any = module.get_submodule(parent)
            setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False))
