"""`llama-server` as the xllamacpp wheel holds it; runs in that wheel's environment.

python llama_cpp_server.py FILE.gguf last|rank PORT CONTEXT [--threads N] [--float32]
"""

import argparse
import threading

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file")
    parser.add_argument("pooling", choices=("last", "rank"))
    parser.add_argument("port", type=int)
    parser.add_argument("context", type=int, help="tokens")
    # Its threads wait for each other by spinning, which slows down several servers on one machine.
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--float32", action="store_true", help="keys and values too; else float16")
    options = parser.parse_args()
    slots = 2
    params = xllamacpp.CommonParams()
    params.model.path = options.file
    params.embedding = True
    kinds = xllamacpp.llama_pooling_type
    params.pooling_type = (
        kinds.LLAMA_POOLING_TYPE_RANK
        if options.pooling == "rank"
        else kinds.LLAMA_POOLING_TYPE_LAST
    )
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_parallel = slots
    params.n_ctx = slots * options.context
    # Like `-ub`: a long text that is read in parts next to a short one gets another vector.
    params.n_batch = params.n_ubatch = options.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    if options.float32:
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.ui = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
