"""Methods side by side, at equal training compute."""
