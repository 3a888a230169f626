"""Speed and quality against peers; `python -m benchmarks.run` measures, docs/benchmarks.md says how."""
