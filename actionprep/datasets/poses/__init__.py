"""Poses: sequences of joints, skeletons, heatmaps and the formats they are read from."""
