"""Description and free resources of the machine of a measurement."""

import ctypes
import os
import platform
import socket
from pathlib import Path


def describe() -> dict[str, str]:
    """Processor, cores, libraries and how busy the machine is with other work."""
    import torch
    import transformers

    gpu = {"GPU": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return gpu | {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "instructions": _instructions(),
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "load average": load_average(),
    }


def load_average() -> str:
    """Load average over 1, 5 and 15 minutes; "unknown" if the system has none."""
    if not hasattr(os, "getloadavg"):
        return "unknown"
    return ", ".join(f"{load:.1f}" for load in os.getloadavg())


def held() -> tuple[float, float]:
    """Resident memory of this process in MiB and its open files; nan if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a path of each is not needed
    except OSError:
        return float("nan"), float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, float(files)


class _Mallinfo(ctypes.Structure):
    """What glibc's `mallinfo2` returns (malloc.h)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
            *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
        )
    ]


def in_use() -> float:
    """Memory in MiB that this process has allocated in the C library now; nan without glibc.

    Resident memory is more: what was freed and not given back, and what code generators map.
    """
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError, TypeError):
        return float("nan")
    mallinfo2.restype = _Mallinfo
    found = mallinfo2()
    return float(found.uordblks + found.hblkhd) / 2**20


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _instructions() -> str:
    """Of the instruction sets that matrix products use, those that the processor has."""
    has = _cpuinfo("flags").split()
    names = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    return ", ".join(name for name in names if name in has) or "unknown"


def _cpuinfo(key: str) -> str:
    """A value of the first processor in Linux's list; empty without one."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    return ""
