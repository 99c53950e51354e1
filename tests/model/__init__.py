"""The model test: random operations on the engine against a simple reference. `test_model.py` begins it."""
