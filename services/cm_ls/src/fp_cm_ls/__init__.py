"""Case management and label store (cm_ls)."""
