"""One file per engine behind `holdfast_engine.port.Engine`, and what each needs for itself."""
