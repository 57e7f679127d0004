"""What Head AI is measured against, over the same tables: `bare` is the least that answers, `documented` the usual way.

Each is a process of its own behind the same uvicorn; neither asks who is calling, which Head AI does.
"""
