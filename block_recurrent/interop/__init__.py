"""Other formats: the official code's parameters and fixtures, and safetensors exports."""
