"Measurements that are printed, never asserted: python -m benchmarks.skill"
