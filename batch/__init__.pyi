from batch.errors import BatchError as BatchError
from batch.errors import ExitCode as ExitCode
from batch.errors import LockedError as LockedError
from batch.errors import ManifestError as ManifestError
from batch.errors import StateError as StateError
from batch.errors import UsageError as UsageError
from batch.job import Job as Job
from batch.library import Run as Run
from batch.library import load_manifest as load_manifest
from batch.library import open_run as open_run
from batch.library import plan_run as plan_run
from batch.manifest import Manifest as Manifest
from batch.manifest import Rate as Rate
from batch.plan import Plan as Plan
from batch.session import Summary as Summary

__version__: str
