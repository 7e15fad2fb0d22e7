"""What a Jetson says of its GPU's clock, its power rails and their alarms.

Sources: the kernel's documents on hwmon and ina3221 (voltages in mV, currents in mA; `currN_max_alarm` is the
warning limit, `currN_crit_alarm` the critical one) and NVIDIA's developer guide of Jetson Linux: VDD_IN, or
POM_5V_IN on older boards, is all that the module draws; without such a rail the others add up to it.
"""

import reading

TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")
NO_RAILS = ("NC", "sum of shunt voltages")
GPU_NAMES = ("gpu", "ga10b", "gv11b", "gp10b", "gm20b")
HWMON = "sys/class/hwmon"
DEVFREQ = "sys/class/devfreq"


def is_jetson(root):
    """Whether the device tree names a Tegra."""
    return "nvidia,tegra" in (reading.read_text(root, "proc/device-tree/compatible") or "")


def find_gpu(root):
    """The folder of the GPU's clock, or None."""
    names = reading.entries(root, DEVFREQ) if is_jetson(root) else []
    found = [name for name in names if any(part in name for part in GPU_NAMES)]
    return "%s/%s" % (DEVFREQ, found[0]) if found else None


def read_gpu_mhz(root, folder):
    """(the GPU's clock, the cap that is set) in MHz."""
    hertz = [reading.read_number(root, "%s/%s" % (folder, name)) for name in ("cur_freq", "max_freq")]
    return tuple(value / 1e6 if value and value > 0 else None for value in hertz)


def find_rails(root):
    """(label, start of the paths, number) of each rail that an INA3221 measures."""
    rails = []
    for entry in reading.entries(root, HWMON):
        folder = "%s/%s" % (HWMON, entry)
        if reading.read_line(root, folder + "/name") != "ina3221":
            continue
        for channel in (1, 2, 3):
            label = reading.read_line(root, "%s/in%d_label" % (folder, channel))
            if label and label not in NO_RAILS and _milliwatts(root, folder, channel) is not None:
                rails.append((label, folder, channel))
    return rails


def total_rails(rails):
    """The rail that all the others hang on, or, without one, all of them."""
    return [rail for rail in rails if rail[0] in TOTAL_RAILS][:1] or rails


def read_power(root, rails):
    """Watts that some rails carry, or None where one cannot be read."""
    taken = [_milliwatts(root, folder, channel) for _, folder, channel in rails]
    return sum(taken) / 1000 if taken and None not in taken else None


def _milliwatts(root, folder, channel):
    millivolts = reading.read_number(root, "%s/in%d_input" % (folder, channel))
    milliamperes = reading.read_number(root, "%s/curr%d_input" % (folder, channel))
    return None if millivolts is None or milliamperes is None else millivolts * milliamperes / 1000


def read_alarms(root, rails):
    """`VDD_IN max` for each limit of a current that is exceeded, or was since it was last asked for."""
    return [
        "%s %s" % (label, limit)
        for label, folder, channel in rails
        for limit in ("max", "crit")
        if reading.read_number(root, "%s/curr%d_%s_alarm" % (folder, channel, limit)) == 1
    ]
