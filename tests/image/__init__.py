"""The runtime directory in containers of every base image. Run by `make test-image`."""
