"""Questions about the bundled corpus, in other words than its own.

They were written before any model had seen them. None was removed because of its result.
"""

QUESTIONS = {
    "Is a row lost if the server crashes right after I inserted it?": (
        "What is the write-ahead log in Milvus for?"
    ),
    "I removed rows, but the bucket is as big as before": (
        "Why is disk space not freed after I delete entities?"
    ),
    "My data does not fit into RAM, what now?": "Can a collection be larger than memory?",
    "I just added a document and the search does not find it": (
        "When do newly inserted rows show up in search results?"
    ),
    "Opening the same .db file from a second script fails": (
        "Can two processes open the same Milvus Lite database?"
    ),
    "How do I go from a local file to a production cluster?": (
        "How do I move from Milvus Lite to a Milvus server?"
    ),
    "I asked for 10 hits and got 7": "Why do I get fewer results than I asked for?",
    "Does writing a row with an existing id overwrite the old one?": (
        "What happens when I insert a primary key that already exists?"
    ),
    "Every passage is rated 0.99, how can I tell them apart?": (
        "Why are all my reranking scores close to 1?"
    ),
    "From which value on should a reranked passage be dropped?": (
        "What score threshold should I use after reranking?"
    ),
    "How much extra time does the second stage take per question?": "What does reranking cost?",
    "Can an attacker write a page that always gets a high score?": (
        "Can a document trick the reranker into answering yes?"
    ),
    "Is cosine better than the dot product?": "Should I use inner product or cosine?",
    "How can I merge two rankings by position, without their scores?": (
        "How does reciprocal rank fusion combine two result lists?"
    ),
    "Can I search only the documents of one customer?": (
        "Can I filter by metadata during a vector search?"
    ),
    "People type in exact product codes": "When is keyword search better than vector search?",
    "Do truncated vectors still have unit length?": (
        "Why must a shortened vector be normalised again?"
    ),
    "I reworded the task description, must I rebuild the index?": (
        "Do I have to embed everything again when I change the instruction?"
    ),
    "Will the 4B model fit on my graphics card?": (
        "How much memory do the Qwen3 models need, and in which precision?"
    ),
    "How many words should one passage have?": "How long should a chunk be?",
    "What should the assistant say when nothing was found?": (
        "What should happen when no passage answers the question?"
    ),
    "A web page in my index gives orders to the chatbot": (
        "How can a retrieved document hijack my language model?"
    ),
    "In which field is the relevance of each returned document?": (
        "Where do I find the reranking scores?"
    ),
    "pip cannot resolve the two Milvus packages": (
        "Can I install the Milvus stores of LangChain and LlamaIndex together?"
    ),
}
"""Question -> title of the passage that answers it."""
