"""llama.cpp's own HTTP server, out of the xllamacpp wheel.

Usage: ``llamacpp_server.py GGUF PORT STREAMS THREADS``.
"""

import signal
import sys

import xllamacpp

CONTEXT = 1024  # tokens of one stream: prompt and answer

if __name__ == "__main__":
    gguf, port, streams, threads = sys.argv[1], *map(int, sys.argv[2:5])
    params = xllamacpp.CommonParams()
    params.model.path = gguf
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = streams
    params.n_ctx = CONTEXT * streams
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_ram_mib = 0
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
