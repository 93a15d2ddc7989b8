"""The workflow templates and subgraph blueprints as code, and what writes their files."""
