"""Trees of files as the kernel of three Jetson boards shows them, small enough to change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MEMINFO = "MemTotal: {total} kB\nMemFree: 1000 kB\nMemAvailable: {available} kB\n"


def hwmon(place: int, name: str, **files: object) -> dict[str, object]:
    return {f"sys/class/hwmon/hwmon{place}/{file}": value for file, value in {"name": name, **files}.items()}


def ina3221(place: int, *rails: tuple[str, int, int]) -> dict[str, object]:
    """Labels, millivolts and milliamperes of up to three channels, and the channel that adds up their shunts."""
    files: dict[str, object] = {"in7_label": "sum of shunt voltages", "in7_input": 100}
    for channel, (label, millivolts, milliamperes) in enumerate(rails, start=1):
        files |= {f"in{channel}_label": label, f"in{channel}_input": millivolts, f"curr{channel}_input": milliamperes}
        # shunt voltages have no label
        files[f"in{channel + 3}_input"] = 12
    return hwmon(place, "ina3221", **files)


def zones(**celsius: float) -> dict[str, object]:
    """Temperatures by zone."""
    found: dict[str, object] = {}
    for place, (name, value) in enumerate(celsius.items()):
        found[f"sys/class/thermal/thermal_zone{place}/type"] = name.replace("_", "-")
        found[f"sys/class/thermal/thermal_zone{place}/temp"] = int(value * 1000)
    return found


def policy(place: int, now: int, least: int, most: int, governor: str = "schedutil") -> dict[str, object]:
    folder = f"sys/devices/system/cpu/cpufreq/policy{place}"
    clocks = {"scaling_cur_freq": now, "scaling_min_freq": least, "scaling_max_freq": most}
    return {f"{folder}/{name}": value for name, value in {**clocks, "scaling_governor": governor}.items()}


def devfreq(name: str, now: int, least: int, most: int) -> dict[str, object]:
    clocks = {"cur_freq": now, "min_freq": least, "max_freq": most}
    return {f"sys/class/devfreq/{name}/{file}": value for file, value in clocks.items()}


def release(number: int, revision: str) -> str:
    return f"# R{number} (release), REVISION: {revision}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: a day\n"


BOARDS: dict[str, dict[str, object]] = {
    "orin-nano": {
        "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
        "etc/nv_tegra_release": release(36, "4.3"),
        "var/lib/dpkg/status": "Package: nvidia-jetpack\nStatus: installed\nVersion: 6.2+b77\n\nPackage: x\n",
        "proc/meminfo": MEMINFO.format(total=7_802_880, available=6_000_000),
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release\n",
        "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
        **hwmon(0, "pwm_tach", fan1_input=2000),
        **ina3221(1, ("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300)),
        **zones(cpu_thermal=48.5, gpu_thermal=47.0, tj_thermal=49.1, cv0_thermal=-256),
        **policy(0, 1_728_000, 729_600, 1_728_000),
        **policy(4, 1_344_000, 729_600, 1_728_000),
        **devfreq("17000000.gpu", 1_020_000_000, 306_000_000, 1_020_000_000),
        **devfreq("154c0000.nvenc", 1, 1, 1),
    },
    "agx-orin": {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "etc/nv_tegra_release": release(35, "4.1"),
        "proc/meminfo": MEMINFO.format(total=64_000_000, available=60_000_000),
        "proc/sys/kernel/osrelease": "5.10.120-tegra\n",
        **ina3221(3, ("VDD_GPU_SOC", 20_000, 150), ("VDD_CPU_CV", 20_000, 50), ("VIN_SYS_5V0", 5_000, 1_000)),
        **ina3221(4, ("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5_000, 200), ("NC", 0, 0)),
        **zones(CPU_therm=51.0, GPU_therm=48.0, tj_therm=51.5),
        **policy(0, 2_201_600, 2_201_600, 2_201_600, "performance"),
        **devfreq("17000000.ga10b", 1_300_500_000, 1_300_500_000, 1_300_500_000),
    },
    "thor": {
        "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
        "etc/nv_tegra_release": release(38, "2.0"),
        "proc/meminfo": MEMINFO.format(total=128_825_804, available=120_000_000),
        "proc/sys/kernel/osrelease": "6.8.12-tegra\n",
        **ina3221(2, ("VDD_GPU", 12_000, 2_000), ("VDD_CPU_SOC_MSS", 12_000, 600), ("VIN_SYS_5V0", 5_000, 1_200)),
        # an INA238 at the input; it computes power, in microwatts, and has no labels
        **hwmon(5, "ina238", in1_input=19_000, curr1_input=2_400, power1_input=45_600_000),
        **zones(cpu_thermal=53.7, soc012_thermal=55.1, tj_thermal=55.2),
        # a zone of a part that is off has a type and no temperature
        "sys/class/thermal/thermal_zone9/type": "gpu-thermal",
        **policy(0, 2_601_000, 54_000, 2_601_000),
        **devfreq("gpu-gpc-0", 1_575_000_000, 315_000_000, 1_575_000_000),
        **devfreq("gpu-nvd-0", 1, 1, 2),
        **devfreq("bwmgr", 4_266_000_000, 665_600_000, 4_266_000_000),
    },
}


@pytest.fixture
def board(tmp_path: Path) -> Callable[..., Path]:
    """The tree of a board, with files changed, or left out where they are None."""

    def build(name: str, changes: dict[str, Any] | None = None) -> Path:
        root = tmp_path / name
        for path, value in (BOARDS[name] | (changes or {})).items():
            file = root / path
            file.unlink(missing_ok=True)
            if value is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(str(value))
        return root

    return build
