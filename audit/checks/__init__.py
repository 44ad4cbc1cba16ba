"""What the gate asks of a model, each as a check: measured, judged, and said in a sentence."""
