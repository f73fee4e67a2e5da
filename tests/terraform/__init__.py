"""The deployment, checked without a cloud: style, schema, references, policies, a trial apply."""
