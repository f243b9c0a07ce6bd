"""The five stages: each reads the artifacts before it and writes its own."""
