"""data/generated/{train,test} -> data/oracle/{train,test}: the detector's masks of named categories; found-rates."""

from __future__ import annotations

from _stage import Params, TrackingRun, run_stage

from diffground.detection.load import load_detector
from diffground.detection.oracle import count_found, detect_shards, require_labels, unlabelled
from diffground.reproduction import paths
from diffground.reproduction.metrics import write_metrics
from diffground.runtime.backend import make_workers
from diffground.runtime.device import setup
from diffground.runtime.fingerprint import checkpoint_fingerprint


def main(params: Params, run: TrackingRun) -> None:
    p = params.detector
    device = setup(params.runtime)
    vocabulary = params.vocabulary.load()
    detector = load_detector(backend=p.backend, checkpoint=p.checkpoint, mask_threshold=p.mask_threshold, device=device)
    require_labels(detector, vocabulary.seen, detector_names=vocabulary.detector_names)
    if unjudged := unlabelled(detector, vocabulary.unseen, detector_names=vocabulary.detector_names):
        print(f"detect: no label for {', '.join(unjudged)}; test images with them are not judged by Protocol I")
    with make_workers(params.runtime, device) as workers:
        for name, out_dir in paths.ORACLE.items():
            detect_shards(
                paths.GENERATED[name],
                out_dir,
                detector=detector,
                detector_id=checkpoint_fingerprint(p.checkpoint),
                detector_names=vocabulary.detector_names,
                score_threshold=p.score_threshold,
                mask_threshold=p.mask_threshold,
                batch_size=p.batch_size,
                description=f"detect {name}",
                workers=workers,
            )
    metrics = {}
    for name, out_dir in paths.ORACLE.items():
        counts = count_found(out_dir)
        metrics[name] = {
            "one_object_all_found_frac": counts.all_found_frac(1),
            "two_objects_all_found_frac": counts.all_found_frac(2),
            "num_images": sum(counts.num_samples.values()),
            "per_category": counts.per_category,
        }
    run.log_results(write_metrics("detect", metrics))


if __name__ == "__main__":
    run_stage("detect", main)
