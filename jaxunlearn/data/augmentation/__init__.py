"""What a network sees: normalised rows, flips, crops, AutoAugment."""
