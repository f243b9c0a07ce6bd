"""The five stages: each reads the artifacts before it and writes its own.

A stage is a module with `run(context)`, a `VERSION`, raised whenever its results change, and `TOGETHER`: whether all
processes of a job run it, which share the work and of which the first writes, or the first alone.
"""
