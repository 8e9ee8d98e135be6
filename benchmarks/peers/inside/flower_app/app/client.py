"""The job's client as a Flower ClientApp: one process a round, as a SuperNode starts them.

Runs in: a process that a SuperNode starts.
Trusts: the job's file.
"""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from same_job import Trainer, read_job

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Do one round."""
    trainer = Trainer(read_job(), int(context.node_config["client"]))
    model = message.content["arrays"].to_numpy_ndarrays()[0]
    arrays = ArrayRecord([trainer.train(model)])
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 1})}), reply_to=message)
