"""What launch.shadows, launch.targets and launch.unlearn do: roles described, executed, and summed up."""
