"""Holds an in-toto statement with SLSA provenance to the published schemas: a field that they do not have is an error."""

import json
import sys

from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

text = open(sys.argv[1], encoding="utf-8").read()
statement = json_format.Parse(text, statement_pb2.Statement())
Statement.copy_from_pb(statement).validate()
predicate = json.loads(text)["predicate"]
provenance = json_format.Parse(json.dumps(predicate), provenance_pb2.Provenance())
definition, details = provenance.build_definition, provenance.run_details
for what, there in {
    "buildType": definition.build_type,
    "externalParameters": len(definition.external_parameters),
    "resolvedDependencies": len(definition.resolved_dependencies),
    "builder.id": details.builder.id,
    "startedOn": details.metadata.started_on.seconds,
    "finishedOn": details.metadata.finished_on.seconds,
}.items():
    if not there:
        sys.exit(f"{what} is missing")
for dependency in definition.resolved_dependencies:
    if not dependency.digest["sha256"]:
        sys.exit(f"{dependency.name} has no sha256")
