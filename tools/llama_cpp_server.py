"""`llama-server` as the xllamacpp wheel holds it; runs in that wheel's environment.

python llama_cpp_server.py FILE.gguf last|rank PORT CONTEXT [THREADS]
"""

import sys
import threading

import xllamacpp


def main() -> None:
    file, pooling, port, context, *threads = sys.argv[1:]
    slots = 2
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.embedding = True
    kinds = xllamacpp.llama_pooling_type
    params.pooling_type = (
        kinds.LLAMA_POOLING_TYPE_RANK if pooling == "rank" else kinds.LLAMA_POOLING_TYPE_LAST
    )
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_parallel = slots
    params.n_ctx = slots * int(context)
    # As `-ub`: a long text that is read in parts beside a short one gets another vector.
    params.n_batch = params.n_ubatch = int(context)
    # Its threads wait for each other without sleeping, which servers side by side cannot afford.
    count = int(threads[0]) if threads else 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = count
    params.ui = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
