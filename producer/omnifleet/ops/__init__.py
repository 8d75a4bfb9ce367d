"""For operators: doctor, top, the Prometheus exporter and Flower."""
