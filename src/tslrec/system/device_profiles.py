"""What a device sustains, by name: the choices of `trainer.device`, from which `tslrec plan` forecasts time and memory.

A number is either measured on such a device or follows from a data sheet, whose peaks no program reaches. Of a peak on
a data sheet the profile holds the share that was measured of the same peak on an H100.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from tslrec.system.errors import UserError

PRODUCT_SHARE = 0.8
"""Share of a data sheet's peak that a large product reaches: 798 of 989 bf16 TFLOP/s were measured on an H100."""

MEMORY_SHARE = 0.9
"""Share of a data sheet's memory bandwidth that a copy reaches: 3.0 of 3.35 TB/s on an H100, 4.3 of 4.8 on an H200."""

LINK_SHARE = 0.8
"""Share of the PCIe bandwidth, one direction, that a copy from pinned memory reaches; an assumption."""

STEP_SHARE = 0.45
"""Share of a large product's rate that a whole step reaches on a GPU; an assumption."""

LAYER_MS = 2.3
"""Time that the host needs to launch the kernels of a decoder layer in one pass. Measured beside an H200 (Intel Xeon):
2.2 in an inference of Llama-2-13B, 2.5 in its SFT, 3.8 in E4SRec's training, which adapts more layers. It is the
processor's, so elsewhere it is an assumption."""

MEASURED_PRODUCT = "measured: a large bf16 product on this card by benchmarks/gpu.py"
MEASURED_COPY = "measured: a copy within this card's memory, bytes read and written"
BENCH = "measured: results/bench/llm.json"
GPU_BENCH = "measured: results/bench/gpu.json"
ASSUMED = "assumed"
REPORTED = "reported by nvidia-smi"
GIVEN = "given"
H100_SHEET = "NVIDIA H100 Tensor Core GPU Datasheet (SXM)"
H200_SHEET = "NVIDIA H200 Tensor Core GPU Datasheet (SXM)"
A100_SHEET = "NVIDIA A100 Tensor Core GPU Datasheet (80GB SXM)"
L40S_SHEET = "NVIDIA L40S Datasheet"
ADA_PAPER = "NVIDIA Ada GPU Architecture, white paper, appendix A"


@dataclass(frozen=True)
class DeviceProfile:
    """Rates and memory of one device.

    Attributes:
        title: the device.
        bf16_tflops: rate of a large matrix product in bf16 or fp16, in 10¹² operations per second.
        fp32_tflops: the same in fp32, without TF32.
        step_share: share of these rates that a whole step of the language model reaches.
        memory_gbs: bandwidth of the device's memory, in 10⁹ bytes per second; None: not known.
        link_gbs: bandwidth from host memory to the device, in 10⁹ bytes per second; None: there is no such link.
        memory_gib: memory of the device in GiB; None: it computes in host memory.
        layer_ms: milliseconds that the host needs to launch the kernels of a decoder layer in one pass; None: it
            computes itself.
        sources: where each number is from, by the name of its field.
    """

    title: str
    bf16_tflops: float
    fp32_tflops: float
    step_share: float = STEP_SHARE
    memory_gbs: float | None = None
    link_gbs: float | None = None
    memory_gib: float | None = None
    layer_ms: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def source(self, name: str) -> str:
        """Where a number is from: `measured`, `data sheet`, `assumed`, `reported` or `given`."""
        text = self.sources.get(name, ASSUMED if name == "step_share" else GIVEN)
        known = ("measured", ASSUMED, "reported", GIVEN)
        return next((word for word in known if text.startswith(word)), "data sheet")


def from_sheet(
    title: str, sheet: str, *, bf16: float, fp32: float, memory: float, link: float, gib: float
) -> DeviceProfile:
    """The profile of a GPU from the peaks on its data sheet.

    Args:
        title: the device.
        sheet: the data sheet's title.
        bf16: peak of dense bf16 products, in 10¹² operations per second.
        fp32: peak of fp32, in 10¹² operations per second.
        memory: memory bandwidth in GB/s.
        link: PCIe bandwidth in one direction in GB/s.
        gib: memory in GiB, as nvidia-smi reports it.
    """
    return DeviceProfile(
        title,
        bf16_tflops=round(PRODUCT_SHARE * bf16, 1),
        fp32_tflops=round(PRODUCT_SHARE * fp32, 1),
        memory_gbs=round(MEMORY_SHARE * memory, 1),
        link_gbs=round(LINK_SHARE * link, 1),
        memory_gib=gib,
        layer_ms=LAYER_MS,
        sources={
            "bf16_tflops": f"{sheet}: {bf16:g} TFLOP/s",
            "fp32_tflops": f"{sheet}: {fp32:g} TFLOP/s",
            "memory_gbs": f"{sheet}: {memory:g} GB/s",
            "link_gbs": f"{sheet}: {link:g} GB/s in each direction",
            "memory_gib": REPORTED,
            "step_share": ASSUMED,
            "layer_ms": ASSUMED,
        },
    )


def measured(
    profile: DeviceProfile, *, bf16_tflops: float, memory_gbs: float, others: Mapping[str, float] | None = None
) -> DeviceProfile:
    """A profile with some of the data sheet's numbers replaced by measured ones.

    Args:
        profile: of the data sheet.
        bf16_tflops: see `DeviceProfile`.
        memory_gbs: see `DeviceProfile`.
        others: further numbers, from `results/bench/gpu.json`, by the names of their fields.
    """
    changed: dict[str, float] = {"bf16_tflops": bf16_tflops, "memory_gbs": memory_gbs, **(others or {})}
    sources = {**profile.sources, "bf16_tflops": MEASURED_PRODUCT, "memory_gbs": MEASURED_COPY}
    sources |= dict.fromkeys(others or {}, GPU_BENCH)
    return replace(profile, **changed, sources=sources)  # type: ignore[arg-type]


DEVICES: dict[str, DeviceProfile] = {
    "h100": measured(
        from_sheet("NVIDIA H100 80GB HBM3", H100_SHEET, bf16=989, fp32=67, memory=3350, link=64, gib=79.6),
        bf16_tflops=798,
        memory_gbs=3000,
    ),
    # Between 769 and 798 TFLOP/s were measured.
    "h200": measured(
        from_sheet("NVIDIA H200", H200_SHEET, bf16=989, fp32=67, memory=4800, link=64, gib=140.4),
        bf16_tflops=783,
        memory_gbs=4300,
        others={"fp32_tflops": 50.9, "link_gbs": 54.9, "layer_ms": LAYER_MS},
    ),
    "a100": from_sheet("NVIDIA A100-SXM4-80GB", A100_SHEET, bf16=312, fp32=19.5, memory=2039, link=32, gib=80.0),
    "l40s": from_sheet("NVIDIA L40S", L40S_SHEET, bf16=362, fp32=91.6, memory=864, link=32, gib=45.0),
    "rtx4090": from_sheet("NVIDIA GeForce RTX 4090", ADA_PAPER, bf16=165.2, fp32=82.6, memory=1008, link=32, gib=24.0),
    "cpu": DeviceProfile(
        "two CPU cores (AMD EPYC)",
        # Not measured; taken to be as fast as fp32.
        bf16_tflops=0.106,
        fp32_tflops=0.106,
        step_share=0.49,
        sources={"bf16_tflops": ASSUMED, "fp32_tflops": BENCH, "step_share": BENCH},
    ),
}
"""The profiles by name. The names are the choices of `trainer.device`."""


def profile_of(device: Any) -> DeviceProfile:
    """The profile that `trainer.device` chooses.

    Args:
        device: a name in `DEVICES`, or a section with the numbers of a `DeviceProfile`, for a device of one's own.

    Raises:
        UserError: if the name is unknown, or a number is unknown, missing or out of its bounds.
    """
    if isinstance(device, Mapping):
        return own_profile(device)
    if device not in DEVICES:
        raise UserError(
            f"trainer.device={device}: must be one of {', '.join(sorted(DEVICES))}, or the numbers of another device, "
            "such as {bf16_tflops:100,fp32_tflops:50,memory_gbs:900,link_gbs:25,memory_gib:24}"
        )
    return DEVICES[device]


def own_profile(numbers: Mapping[str, Any]) -> DeviceProfile:
    """The profile of a device whose numbers the configuration states; they are used as they are.

    Raises:
        UserError: if a number is unknown, missing or out of its bounds.
    """
    known = [each.name for each in fields(DeviceProfile) if each.name != "sources"]
    if unknown := sorted(set(numbers) - set(known)):
        raise UserError(f"trainer.device: unknown {', '.join(unknown)}; it may set {', '.join(known)}")
    if missing := [name for name in ("bf16_tflops", "fp32_tflops") if numbers.get(name) is None]:
        raise UserError(f"trainer.device: {', '.join(missing)} not given; state what a large product reaches")
    for name, value in numbers.items():
        if name == "title" or value is None:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        most = 1.0 if name == "step_share" else math.inf
        if not is_number or not 0 < value <= most or not math.isfinite(value):
            wanted = "a number above 0" + (" and at most 1" if name == "step_share" else "")
            raise UserError(f"trainer.device.{name}={value}: must be {wanted}")
    given = {name: value for name, value in numbers.items() if value is not None}
    return DeviceProfile(**{"title": "a device of one's own", **given})
