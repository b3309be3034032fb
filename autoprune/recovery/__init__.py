"""Bringing a cut model back: running statistics, fine-tuning, distillation."""
