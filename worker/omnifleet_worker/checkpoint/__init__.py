"""The published checkpoint, converted once into the folder that workers load."""
