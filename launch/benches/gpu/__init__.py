"""`launch.bench gpu`: measures an accelerator in a few minutes, and the claims about it.

table     the measurements, in order, as data            runner    processes, deadline, resume, the rows file
child     one process of measurements                    report    the table and the proposal of defaults
device, networks, small, analyses, torch_way             the measurements themselves
clock (timed windows, profiles)   programs (kernels and bytes of a compiled program)   peaks (shares)
"""
