"""`launch.bench gpu`: everything claimed about an accelerator and not yet known, measured in a few minutes.

table     the measurements, in order, as data            runner    processes, deadline, resume, the rows file
child     one process of measurements                    report    the table and the proposal of defaults
device, networks, small, analyses, torch_way             the measurements themselves
clock (timed windows, profiles)   programs (kernels and bytes of a compiled program)   peaks (shares)
"""
