"""The stream relay: reads a stream for a client and, when its engine or region dies, goes on with it elsewhere."""
