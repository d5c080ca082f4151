"""Reads a checkpoint's tensors one by one into newly allocated memory.

A mapped file would stay in memory next to the prepacked weights, and a whole loaded model next to
its quantised form. Reading tensor by tensor, a model needs its own size plus one layer.
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
"""Supported dtypes of stored weights, by the format's names."""

PREFIX: Final = "model."
"""Prefix of tensor names in a model that was saved with its head."""


class Weights:
    """The tensors in a checkpoint's files, by their names in the base model.

    Not thread-safe.
    """

    def __init__(self, name: str, files: Iterable[Path]) -> None:
        """Read the headers of the files.

        Args:
            name: The checkpoint, for error messages.
            files: The safetensors files.

        Raises:
            OSError: If a file is damaged.
            ValueError: If a tensor is stored as integers or twice.
        """
        self.name = name
        self._stored: dict[str, Stored] = {}
        for key, stored in stored_tensors(list(files)).items():
            short = key.removeprefix(PREFIX)
            if short in self._stored:
                msg = f"the checkpoint {name!r} holds {short} twice, with and without {PREFIX!r}"
                raise ValueError(msg)
            if stored.dtype not in DTYPES:
                msg = (
                    f"weight {key} of {name!r} is stored as {stored.dtype}, and only "
                    f"{', '.join(DTYPES)} are supported: use the original checkpoint (with "
                    "dtype='int8' to save memory)"
                )
                raise ValueError(msg)
            self._stored[short] = stored

    def __contains__(self, key: str) -> bool:
        return key in self._stored

    def check(self, wanted: Iterable[str], spare: Iterable[str] = ()) -> None:
        """Check that the files contain all of `wanted`, and nothing else except `spare`.

        Raises:
            ValueError: If weights are missing or left over.
        """
        wanted = set(wanted)
        surplus = sorted(self._stored.keys() - wanted - set(spare))
        if surplus:
            msg = (
                f"the checkpoint {self.name!r} has {len(surplus)} weights that its config.json "
                f"does not describe (first: {surplus[0]}); without them its results would be "
                "wrong. Download it again or use the original checkpoint."
            )
            raise ValueError(msg)
        missing = sorted(wanted - self._stored.keys())
        if missing:
            msg = (
                f"the checkpoint {self.name!r} lacks {len(missing)} weights (first: "
                f"{missing[0]}); they would be random. Download it again or use the original "
                "checkpoint."
            )
            raise ValueError(msg)

    def shape(self, key: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self._stored[key].shape

    def read(self, key: str) -> Tensor:
        """Read a tensor in its stored dtype, on the CPU.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If it contains NaN or infinity.
        """
        stored = self._stored[key]
        tensor = self._bytes(stored, stored.begin, stored.size).view(stored.shape)
        self._check_finite(key, tensor)
        return tensor

    def rows(self, key: str, indices: Iterable[int]) -> Tensor:
        """Read only some rows of a matrix: (n, width) float32.

        Raises:
            OSError: If the file cannot be read.
            ValueError: If the rows contain NaN or infinity, or do not exist.
        """
        stored = self._stored[key]
        count, *_ = stored.shape
        size = stored.size // count
        rows = []
        for index in indices:
            if not 0 <= index < count:
                msg = f"weight {key} of {self.name!r} has {count} rows, and row {index} is needed"
                raise ValueError(msg)
            rows.append(self._bytes(stored, stored.begin + index * size, size).float())
        found = torch.stack(rows)
        self._check_finite(key, found)
        return found

    def _bytes(self, stored: Stored, begin: int, size: int) -> Tensor:
        """Read `size` bytes of a file from `begin` on, as a flat tensor."""
        data = torch.empty(size, dtype=torch.uint8)
        with stored.path.open("rb", buffering=0) as file:
            file.seek(begin)
            left = memoryview(data.numpy().data)
            while left:
                count = file.readinto(left)
                if not count:
                    msg = f"{stored.path} is truncated: download it again"
                    raise OSError(msg)
                left = left[count:]
        return data.view(DTYPES[stored.dtype])

    def _check_finite(self, key: str, tensor: Tensor) -> None:
        # Both extremes are NaN if one number is; isfinite() of the whole tensor takes 40 times as
        # long.
        if tensor.numel() and not all(map(torch.isfinite, torch.aminmax(tensor))):
            msg = f"weight {key} of {self.name!r} holds NaN or infinity: download the model again"
            raise ValueError(msg)

    def fill(self, module: nn.Module, prefix: str, dtype: torch.dtype, device: str) -> None:
        """Read the parameters of a module that has only their shapes (device "meta").

        Args:
            module: The module.
            prefix: Prefix of its parameters' names in the checkpoint.
            dtype: The dtype to convert them to.
            device: The device to put them on.

        Raises:
            OSError: If a file cannot be read.
            ValueError: If a tensor has another shape, or contains NaN or infinity.
        """
        for name, parameter in list(module.named_parameters()):
            key = prefix + name
            if self.shape(key) != tuple(parameter.shape):
                msg = (
                    f"weight {key} of {self.name!r} has the shape {self.shape(key)}, and its "
                    f"config.json says {tuple(parameter.shape)}: the files are not of one "
                    "checkpoint, download it again"
                )
                raise ValueError(msg)
            tensor = self.read(key).to(device, dtype)
            self._check_finite(key, tensor)  # float16 overflows above 65,504
            parent, _, leaf = name.rpartition(".")
            owner: Any = module.get_submodule(parent)
            setattr(owner, leaf, nn.Parameter(tensor, requires_grad=False))
