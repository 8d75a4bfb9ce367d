"""What tests of the deployment share: container engines, Kubernetes manifests, and what Prometheus queries read."""
