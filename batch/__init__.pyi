from batch.api import Run as Run
from batch.api import load_manifest as load_manifest
from batch.api import open_run as open_run
from batch.api import plan_run as plan_run
from batch.errors import BatchError as BatchError
from batch.errors import ExitCode as ExitCode
from batch.errors import LockedError as LockedError
from batch.errors import ManifestError as ManifestError
from batch.errors import StateError as StateError
from batch.errors import UsageError as UsageError
from batch.job import Job as Job
from batch.manifest.limits import Rate as Rate
from batch.manifest.model import Manifest as Manifest
from batch.plan import Plan as Plan
from batch.rows import Row as Row
from batch.run.summary import Summary as Summary

__version__: str
