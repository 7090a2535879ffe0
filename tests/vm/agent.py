# A host of a fleet as the collector sees it: delivers numbered records over a stream, and whatever
# happens sends again what was not acknowledged. Arguments: the directory of the generated files,
# that of the certificate, the address, and how many records.
import os, sys, time

generated, certificates, address, count = sys.argv[1:5]
sys.path.insert(0, generated)

import grpc
from sekimori.v1 import event_pb2, ingest_pb2

BATCH, WINDOW, PATIENCE = 50, 4, 120


def read(name):
    with open(certificates + "/" + name, "rb") as file:
        return file.read()


credentials = grpc.ssl_channel_credentials(read("ca.pem"), read("key.pem"), read("cert.pem"))
boot = os.urandom(16)
batches = []
for first in range(1, int(count) + 1, BATCH):
    request = ingest_pb2.IngestRequest(batch=len(batches) + 1)
    for sequence in range(first, min(first + BATCH, int(count) + 1)):
        event = event_pb2.Event(boot=boot, sequence=sequence, kind=event_pb2.KIND_EXEC,
                                time_ns=time.time_ns(), message="艦隊")
        request.events.append(event.SerializeToString())
    batches.append(request)


def deliver(done):
    """Sends from the first batch that is not acknowledged; answers how far that came."""
    acknowledged = [done]

    def requests():
        for index in range(done, len(batches)):
            while index - acknowledged[0] >= WINDOW:
                time.sleep(0.002)
            yield batches[index]
            # So that there is something to be interrupted.
            time.sleep(0.05)
        while acknowledged[0] < len(batches):
            time.sleep(0.01)

    options = [("grpc.keepalive_time_ms", 2000), ("grpc.keepalive_timeout_ms", 2000)]
    with grpc.secure_channel(address, credentials, options) as channel:
        stream = channel.stream_stream(
            "/sekimori.v1.IngestService/Stream",
            request_serializer=ingest_pb2.IngestRequest.SerializeToString,
            response_deserializer=ingest_pb2.IngestResponse.FromString,
        )
        try:
            for response in stream(requests(), timeout=PATIENCE):
                acknowledged[0] = max(acknowledged[0], response.batch)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT):
                raise
    return acknowledged[0]


done, breaks, until = 0, 0, time.time() + PATIENCE
while done < len(batches):
    if time.time() > until:
        raise SystemExit("not delivered in time: %d of %d batches" % (done, len(batches)))
    done = deliver(done)
    if done < len(batches):
        breaks += 1
        time.sleep(0.2)
print(breaks)
