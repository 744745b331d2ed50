"""KServe's v2 inference protocol with Triton's extensions, over HTTP and gRPC, in front of whatever engine there is."""
